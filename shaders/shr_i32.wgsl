// Shift to the right, keeping the sign; of all bits from 32 on and for a negative amount.
fn shr_i32(a: i32, b: i32) -> i32 {
  return a >> select(31u, u32(b), b >= 0 && b < 32);
}
