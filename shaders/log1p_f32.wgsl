// log(1 + x), exact near 0 (Kahan's correction of the rounding of 1 + x).
fn log1p_f32(x: f32) -> f32 {
  let u = 1.0 + x;
  let d = u - 1.0;
  return select(log(u) * (x / select(d, 1.0, d == 0.0)), x, d == 0.0);
}
