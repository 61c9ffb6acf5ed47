// a - b * floor(a / b): the remainder with the sign of b.
fn mod_f32(a: f32, b: f32) -> f32 {
  let r = rem_f32(a, b);
  return select(r, r + b, r != 0.0 && (r < 0.0) != (b < 0.0));
}
