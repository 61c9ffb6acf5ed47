// The inverse hyperbolic tangent; infinite at 1 and -1, not a number beyond.
fn atanh_f32(x: f32) -> f32 {
  let a = abs(x);
  let side = select(1.0, -1.0, x < 0.0);
  if (a > 1.0) {
    return nan_f32();
  }
  if (a == 1.0) {
    return side * infinity_f32();
  }
  return side * 0.5 * log1p_f32(2.0 * a / (1.0 - a));
}
