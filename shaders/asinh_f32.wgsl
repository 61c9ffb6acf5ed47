// The inverse hyperbolic sine; by the logarithm of twice the argument where its square would overflow.
fn asinh_f32(x: f32) -> f32 {
  let a = abs(x);
  let m = min(a, 1e9);
  let small = log1p_f32(m + m * m / (1.0 + sqrt(m * m + 1.0)));
  let large = log(max(a, 1.0)) + 0.6931471805599453;
  return select(1.0, -1.0, x < 0.0) * select(small, large, a > 1e9);
}
