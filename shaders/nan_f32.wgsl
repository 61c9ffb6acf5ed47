// Not a number. A constant expression may not have this value, a variable may.
fn nan_f32() -> f32 {
  var bits = 0x7fc00000u;
  return bitcast<f32>(bits);
}
