// Shift to the left; 0 from 32 on.
fn shl_i32(a: i32, b: i32) -> i32 {
  return select(0, a << (u32(b) & 31u), b >= 0 && b < 32);
}
