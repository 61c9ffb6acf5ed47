// The inverse sine, to 2e-7 (Cephes, asinf); not a number beyond 1.
fn asin_f32(x: f32) -> f32 {
  let a = abs(x);
  let far = a > 0.5;
  let z = select(a * a, 0.5 * (1.0 - a), far);
  let r = select(a, sqrt(z), far);
  var p = 4.2163199048e-2;
  p = p * z + 2.4181311049e-2;
  p = p * z + 4.5470025998e-2;
  p = p * z + 7.4953002686e-2;
  p = p * z + 1.6666752422e-1;
  let q = p * z * r + r;
  let value = select(q, 1.5707963267948966 - 2.0 * q, far);
  if (a > 1.0) {
    return nan_f32();
  }
  return select(value, -value, x < 0.0);
}
