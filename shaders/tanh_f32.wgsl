// The hyperbolic tangent without overflow, to a few units in the last place also near 0: a rational approximation of odd
// terms, as in Eigen's generic_fast_tanh_float.
fn tanh_f32(x: f32) -> f32 {
  let z = clamp(x, -9.0, 9.0);
  let t = z * z;
  var p = -2.76076847742355e-16;
  p = p * t + 2.00018790482477e-13;
  p = p * t - 8.60467152213735e-11;
  p = p * t + 5.12229709037114e-08;
  p = p * t + 1.48572235717979e-05;
  p = p * t + 6.37261928875436e-04;
  p = p * t + 4.89352455891786e-03;
  var q = 1.19825839466702e-06;
  q = q * t + 1.18534705686654e-04;
  q = q * t + 2.26843463243900e-03;
  q = q * t + 4.89352518554385e-03;
  return clamp(z * p / q, -1.0, 1.0);
}
