// a - b * trunc(a / b), with the quotient's rounding corrected.
fn rem_f32(a: f32, b: f32) -> f32 {
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
