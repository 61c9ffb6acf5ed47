// Shift to the right, keeping the sign; all sign for negative places and from 32 on.
fn shr_i32(a: i32, b: i32) -> i32 {
  return a >> min(u32(b), 31u);
}
