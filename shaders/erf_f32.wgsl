// The error function, to 4e-7: a rational approximation of odd terms, as in Eigen's generic_fast_erf_float.
fn erf_f32(x: f32) -> f32 {
  let z = clamp(x, -4.0, 4.0);
  let t = z * z;
  var p = -2.72614225801306e-10;
  p = p * t + 2.77068142495902e-08;
  p = p * t - 2.10102402082508e-06;
  p = p * t - 5.69250639462346e-05;
  p = p * t - 7.34990630326855e-04;
  p = p * t - 2.95459980854025e-03;
  p = p * t - 1.60960333262415e-02;
  var q = -1.45660718464996e-05;
  q = q * t - 2.13374055278905e-04;
  q = q * t - 1.68282697438203e-03;
  q = q * t - 7.37332916720468e-03;
  q = q * t - 1.42647390514189e-02;
  return clamp(z * p / q, -1.0, 1.0);
}
