//! One binary; its modules are named after what goes wrong.

mod cancelled;
mod counted;
mod faults;
mod model;
mod porting;
mod refusals;
mod support;
mod traced;
