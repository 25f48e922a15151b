//! Random numbers for jitter and tie-breaks. Decisions are pure and take such a number as an argument,
//! so this stands apart from them.

/// A uniform random number in 0..1 from the kernel; 0.5 where the kernel has none to give.
pub fn random() -> f64 {
    let mut bytes = [0_u8; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64,
        _ => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_lie_between_zero_and_one() {
        for _ in 0..100 {
            assert!((0.0..1.0).contains(&random()));
        }
    }
}
