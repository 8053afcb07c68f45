#![allow(missing_docs, unused, clippy::all)]
use super::Device; use std::{sync::Arc,path::PathBuf,io}; use crate::nic::Refused; use chanio_model::offload::RxOffloads;
pub struct VhostServer; pub struct SessionHandle; pub enum SessionSpec{Listen(PathBuf,Arc<dyn Device>),Connect(PathBuf,Arc<dyn Device>)}
impl VhostServer{pub fn start()->io::Result<Self>{Ok(Self)} pub fn add(&self,_:Vec<SessionSpec>)->Result<Vec<SessionHandle>,Refused>{todo!()} pub fn remove(&self,_:Vec<SessionHandle>){} pub fn reset(&self,_:&SessionHandle){} pub fn config_changed(&self,_:&SessionHandle){}}
pub fn header_len(_:u64)->usize{12} pub const MRG_RXBUF:u64=1<<15; pub fn rx_offloads(_:u64)->RxOffloads{todo!()} pub const MAX_QUEUE_PAIRS:u16=127;
pub mod features { pub const VERSION_1:u64=1<<32; pub const PROTOCOL_FEATURES:u64=1<<30; pub const RING_EVENT_IDX:u64=1<<29; pub const MRG_RXBUF:u64=1<<15;}
