// 1 / (1 + e^-x) without overflow.
fn sigmoid_f32(x: f32) -> f32 {
  let e = exp(-abs(x));
  let r = 1.0 / (1.0 + e);
  return select(e * r, r, x >= 0.0);
}
