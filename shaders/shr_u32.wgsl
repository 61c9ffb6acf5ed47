// Shift to the right; 0 from 32 on.
fn shr_u32(a: u32, b: u32) -> u32 {
  return select(0u, a >> (b & 31u), b < 32u);
}
