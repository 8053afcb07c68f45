#![allow(missing_docs, unused, clippy::all)]
use chanio_model::offload::RxOffloads;
use crate::nic::{Refused, spec::*};
use chanio_model::*;
use std::io::{self,IoSlice};
use std::os::fd::*;
pub struct Tap;
pub enum SendError { Full, Down, Absent }
impl Tap { pub fn recv(&self,_:&mut [u8])->io::Result<Option<usize>>{Ok(None)} pub fn send(&self,_:&[IoSlice<'_>])->Result<(),SendError>{Ok(())} pub fn offloads(&self)->RxOffloads{todo!()} pub fn set_carrier(&self,_:bool)->io::Result<()>{Ok(())}}
impl AsFd for Tap { fn as_fd(&self)->BorrowedFd<'_>{todo!()} }
pub struct Uplink;
impl Uplink { pub fn open(_:&UplinkSpec)->Result<Self,Refused>{Ok(Self)} pub fn as_fd(&self)->Option<BorrowedFd<'_>>{None} pub fn recv(&self,_:&mut [u8])->io::Result<Option<usize>>{Ok(None)} pub fn send(&self,_:&[IoSlice<'_>])->Result<(),SendError>{Ok(())} pub fn offloads(&self)->RxOffloads{todo!()}}
pub struct Carrier; impl Carrier{pub fn set(&self,_:bool)->io::Result<()>{Ok(())}}
pub struct Representor; pub struct Link{pub up:bool,pub carrier:bool,pub mtu:u32}
impl Representor{ pub fn name(&self)->&str{""} pub fn tap(&self)->&Tap{todo!()} pub fn carrier(&self)->Carrier{Carrier} pub fn link(&self)->Link{todo!()} pub fn set_mtu(&self,_:u32)->Result<(),Refused>{Ok(())}}
pub struct Representors; pub struct NewRepresentor{pub vport:VportId,pub alias:ChannelName,pub mtu:u32}
impl Representors{ pub fn new(_:u32)->Result<Self,String>{Ok(Self)} pub fn create_uplink(&self)->Result<Representor,Refused>{todo!()} pub fn create(&self,_:&[NewRepresentor])->Result<Vec<Representor>,Refused>{todo!()}}
pub const MAX_TAP_QUEUES:u16=256;
pub fn attach_tap(_:&str,_:&str,_:u16,_:Mac,_:u16,_:&[ipnet::IpNet])->Result<Vec<Tap>,Refused>{todo!()}
impl std::fmt::Display for UplinkSpec{fn fmt(&self,f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{f.write_str("none")}}
pub struct IfName(String);
#[derive(Debug, thiserror::Error)] #[error("netdev: `{0}` is not a name")] pub struct IfNameError(pub String);
impl std::str::FromStr for IfName { type Err=IfNameError; fn from_str(t:&str)->Result<Self,IfNameError>{ if t.is_empty()||t.len()>15||t.contains(['/',':','%',' ']){Err(IfNameError(t.into()))}else{Ok(Self(t.into()))}}}
impl std::fmt::Display for IfName { fn fmt(&self,f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{f.write_str(&self.0)}}
impl std::str::FromStr for UplinkSpec { type Err=String; fn from_str(t:&str)->Result<Self,String>{ if t=="none"{Ok(Self::None)}else{Err(format!("uplink: `{t}`"))}}}
pub fn raise_nofile_limit(needed:u64)->Result<(),Refused>{ use nix::sys::resource::*; let (_,hard)=getrlimit(Resource::RLIMIT_NOFILE).map_err(|e|Refused::os("nofile",e))?; setrlimit(Resource::RLIMIT_NOFILE,needed.min(hard),hard).map_err(|e|Refused::os("nofile",e)) }
