//! Frames for the demo's channels to say to each other.

use chanio_model::Mac;
use chanio_model::wire::checksum;

/// One flow; every frame of it is the same.
#[derive(Clone, Copy)]
pub struct Flow {
    src: Mac,
    dst: Mac,
    sender: usize,
    proto: u8,
    dst_port: u16,
}

const UDP: u8 = 17;
const TCP: u8 = 6;
const PAYLOAD: &[u8] = b"through my own queues";

impl Flow {
    /// UDP to port 7.
    pub fn udp(src: Mac, dst: Mac, sender: usize) -> Self {
        Self {
            src,
            dst,
            sender,
            proto: UDP,
            dst_port: 7,
        }
    }

    /// The same sender's TCP to port 25.
    pub fn mail(self) -> Self {
        Self {
            proto: TCP,
            dst_port: 25,
            ..self
        }
    }

    /// Ethernet, IPv4, UDP or a TCP SYN, all checksums right.
    pub fn frame(&self) -> Vec<u8> {
        let [_, _, hi, lo] = (self.sender as u32).to_be_bytes();
        let (src_ip, dst_ip) = ([10, 1, hi, lo], [10, 2, hi, lo]);
        let l4 = self.l4(&src_ip, &dst_ip);
        let total = (20 + l4.len()) as u16;
        let mut ip = vec![0x45, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, self.proto, 0, 0]);
        ip.extend(src_ip);
        ip.extend(dst_ip);
        let sum = checksum::internet(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = Vec::with_capacity(14 + usize::from(total));
        frame.extend(self.dst.0);
        frame.extend(self.src.0);
        frame.extend([0x08, 0x00]);
        frame.extend(ip);
        frame.extend(l4);
        frame
    }

    fn l4(&self, src_ip: &[u8; 4], dst_ip: &[u8; 4]) -> Vec<u8> {
        let mut l4 = 4000u16.to_be_bytes().to_vec();
        l4.extend(self.dst_port.to_be_bytes());
        let at = if self.proto == UDP {
            l4.extend(((8 + PAYLOAD.len()) as u16).to_be_bytes());
            l4.extend([0, 0]);
            l4.extend(PAYLOAD);
            6
        } else {
            l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            16
        };
        let pseudo = checksum::pseudo_v4(src_ip, dst_ip, self.proto, l4.len() as u32);
        let sum = pseudo.bytes(&l4).finish();
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        l4
    }
}
