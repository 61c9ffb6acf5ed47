// Infinity. A constant expression may not have this value, a variable may.
fn infinity_f32() -> f32 {
  var bits = 0x7f800000u;
  return bitcast<f32>(bits);
}
