// The inverse tangent, to 1e-7 (Cephes, atanf): reduction to |x| <= tan(pi / 8) and an odd polynomial.
fn atan_f32(x: f32) -> f32 {
  let a = abs(x);
  let far = a > 2.414213562373095;
  let middle = a > 0.4142135623730950;
  let start = select(select(0.0, 0.7853981633974483, middle), 1.5707963267948966, far);
  let numerator = select(select(a, a - 1.0, middle), -1.0, far);
  let denominator = select(select(1.0, a + 1.0, middle), a, far);
  let r = numerator / denominator;
  let z = r * r;
  var p = 8.05374449538e-2;
  p = p * z - 1.38776856032e-1;
  p = p * z + 1.99777106478e-1;
  p = p * z - 3.33329491539e-1;
  let value = start + (p * z * r + r);
  return select(value, -value, x < 0.0);
}
