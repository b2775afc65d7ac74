//! Compressed request bodies, which Express inflates: `gzip` and `deflate`.

use std::io::Read;

use axum::http::{HeaderMap, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::error::ApiError;

/// The body as it was before it was compressed. It may have `limit` bytes, and no more than that is ever inflated.
pub(super) fn inflated(headers: &HeaderMap, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str());
    let encoding = encoding.map_err(|_| ApiError::EncodingUnsupported)?;
    if encoding.eq_ignore_ascii_case("identity") {
        Ok(body)
    } else if encoding.eq_ignore_ascii_case("gzip") {
        bounded(MultiGzDecoder::new(body.as_slice()), limit)
    } else if encoding.eq_ignore_ascii_case("deflate") {
        bounded(ZlibDecoder::new(body.as_slice()), limit)
    } else {
        Err(ApiError::EncodingUnsupported)
    }
}

fn bounded(decoder: impl Read, limit: usize) -> Result<Vec<u8>, ApiError> {
    let (mut body, most) = (Vec::new(), u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    decoder.take(most).read_to_end(&mut body).map_err(|_| ApiError::MalformedJson)?;
    if body.len() > limit { Err(ApiError::PayloadTooLarge) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn sent(encoding: &'static str, body: Vec<u8>) -> Result<Vec<u8>, ApiError> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
        inflated(&headers, body, 1000)
    }

    #[test]
    fn gzip_and_deflate_are_inflated_and_any_other_encoding_is_refused() {
        let mut deflate = ZlibEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(b"{}").unwrap();
        assert_eq!(sent("gzip", gzip(b"{}")), Ok(b"{}".to_vec()));
        assert_eq!(sent("Deflate", deflate.finish().unwrap()), Ok(b"{}".to_vec()));
        assert_eq!(sent("identity", b"{}".to_vec()), Ok(b"{}".to_vec()));
        assert_eq!(inflated(&HeaderMap::new(), b"{}".to_vec(), 2), Ok(b"{}".to_vec()));
        for other in ["br", "gzip, gzip", ""] {
            assert_eq!(sent(other, gzip(b"{}")), Err(ApiError::EncodingUnsupported), "{other}");
        }
    }

    #[test]
    fn a_small_body_that_inflates_to_a_large_one_is_too_large() {
        let bomb = gzip(&vec![b' '; 1_000_000]);
        assert!(bomb.len() < 2000);
        assert_eq!(sent("gzip", bomb), Err(ApiError::PayloadTooLarge));
        assert_eq!(sent("gzip", gzip(&[b' '; 1000])).unwrap().len(), 1000);
    }

    proptest! {
        #[test]
        fn garbage_and_broken_bodies_are_malformed(garbage: Vec<u8>, keep in 0usize..20) {
            prop_assert!(sent("deflate", garbage.clone()).is_err() || !garbage.is_empty());
            let whole = gzip(b"{\"ticketId\": 1}");
            let broken = whole[..keep.min(whole.len() - 1)].to_vec();
            let result = sent("gzip", broken.clone());
            prop_assert!(result == Err(ApiError::MalformedJson) || broken.is_empty(), "{:?}", result);
        }
    }
}
