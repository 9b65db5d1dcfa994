//! Random numbers from the kernel.

use anyhow::{Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};

/// A number that nobody can guess.
pub fn number() -> Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the kernel gives no random numbers"))?;
    Ok(u64::from_le_bytes(bytes))
}
