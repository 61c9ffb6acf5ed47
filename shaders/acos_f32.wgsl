// The inverse cosine, by the inverse sine; not a number beyond 1.
fn acos_f32(x: f32) -> f32 {
  if (x > 0.5) {
    return 2.0 * asin_f32(sqrt(0.5 * (1.0 - x)));
  }
  return 1.5707963267948966 - asin_f32(x);
}
