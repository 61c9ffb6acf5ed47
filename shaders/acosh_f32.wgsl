// The inverse hyperbolic cosine; not a number below 1.
fn acosh_f32(x: f32) -> f32 {
  let t = min(x, 1e9) - 1.0;
  let small = log1p_f32(t + sqrt(max(t, 0.0) * (t + 2.0)));
  let large = log(max(x, 1.0)) + 0.6931471805599453;
  let value = select(small, large, x > 1e9);
  if (x < 1.0) {
    return nan_f32();
  }
  return value;
}
