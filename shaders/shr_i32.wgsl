// Shift to the right, keeping the sign.
fn shr_i32(a: i32, b: i32) -> i32 {
  return a >> u32(clamp(b, 0, 31));
}
