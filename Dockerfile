# One static binary and nothing else. The last stage needs only the folder that the first one fills,
# so that a build without a registry can give that folder in place of the first stage.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# glibc, its DNS resolver included, is linked in; a target must be named so that build scripts are not.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" --target-dir /build \
 && mkdir /out && cp "/build/$target/release/orders-operator" /out/

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="orders-operator" \
      org.opencontainers.image.description="The orders service of a ticketing system on Kubernetes: its operator, its HTTP API and its expiry" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/orders-operator /orders-operator
USER 65532:65532
ENTRYPOINT ["/orders-operator"]
