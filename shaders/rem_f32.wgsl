// a - b * trunc(a / b), with the quotient's rounding corrected; a where only b is infinite.
fn rem_f32(a: f32, b: f32) -> f32 {
  if (is_inf_f32(b) && !is_inf_f32(a)) {
    return a;
  }
  let q = trunc(a / b);
  var r = fma(-q, b, a);
  if (r != 0.0 && (r < 0.0) != (a < 0.0)) {
    r = select(r - abs(b), r + abs(b), a > 0.0);
  }
  if (abs(r) >= abs(b)) {
    r = select(r + abs(b), r - abs(b), a > 0.0);
  }
  return r;
}
