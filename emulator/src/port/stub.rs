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
impl std::fmt::Display for UplinkSpec{fn fmt(&self,_:&mut std::fmt::Formatter<'_>)->std::fmt::Result{Ok(())}}
