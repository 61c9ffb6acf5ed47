// x^y by repeated multiplication, wrapping.
fn pow_u32(x: u32, y: u32) -> u32 {
  var result = 1u;
  var square = x;
  for (var rest = u32(y); rest > 0u; rest >>= 1u) {
    if ((rest & 1u) == 1u) {
      result *= square;
    }
    square *= square;
  }
  return result;
}
