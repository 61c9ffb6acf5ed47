// Whether x is not a number, by its bits: a comparison may be compiled as if there were no such value.
fn is_nan_f32(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
