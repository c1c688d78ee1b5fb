//! Dunlin on microcontrollers: slots over embedded-storage, clocks and links over embedded-hal.
#![no_std]
#![forbid(unsafe_code)]
