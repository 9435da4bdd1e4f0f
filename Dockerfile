# The taskhook image: one program on Debian, run by a user without rights, with its store and its files in /data.
#
#   docker build -t taskhook .
#   docker run --rm taskhook demo --once
#
# /data is a plain directory, not a declared volume: a declared one gets an anonymous volume at every run, which hides what the
# image has there and outlives the container unseen. Mount one yourself: `-v taskhook-data:/data`.

FROM rust:1-bookworm AS build
ARG PROFILE=dist
WORKDIR /build

# The dependencies first, with an empty program in place of ours, so that this layer lasts until Cargo.toml or Cargo.lock changes.
# Both secrets are optional: a machine's own Cargo configuration (say, a registry mirror) and its certificate authorities.
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=secret,id=cargo_config,target=/usr/local/cargo/config.toml \
    --mount=type=secret,id=authorities,target=/run/authorities.crt \
    mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && if [ -f /run/authorities.crt ]; then export CARGO_HTTP_CAINFO=/run/authorities.crt; fi \
    && cargo build --locked --profile "$PROFILE" --bin taskhook

# Nothing of the empty program may stand beside ours. Cargo goes by times of files, and a checkout may be older than the empty
# program: `touch` makes ours the newer one.
RUN rm -r src
COPY . .
RUN --mount=type=secret,id=cargo_config,target=/usr/local/cargo/config.toml \
    touch src/main.rs src/lib.rs && cargo build --locked --offline --profile "$PROFILE" --bin taskhook \
    && install -D "target/$PROFILE/taskhook" /out/taskhook

FROM debian:bookworm-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin taskhook \
    && install --directory --owner=taskhook --group=taskhook --mode=0750 /data
# The slim base has no certificate authorities; outgoing TLS needs them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/taskhook/
COPY --from=build /out/taskhook /usr/local/bin/taskhook

LABEL org.opencontainers.image.title="taskhook" \
      org.opencontainers.image.description="The durable inbox for AI-agent webhooks" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# The admin listener leaves loopback, so it requires a token; the program makes one at its first start and says where it is.
ENV TASKHOOK__STORE__URL=sqlite:///data/taskhook.db \
    TASKHOOK__ARCHIVE__URL=file:///data/files \
    TASKHOOK__SERVER__LISTEN=0.0.0.0:8080 \
    TASKHOOK__ADMIN__LISTEN=0.0.0.0:8081 \
    TASKHOOK__ADMIN__TOKEN_FILE=/data/admin-token
# By number, so that a cluster which demands a user other than root can see that it is one.
USER 10001:10001
# The working directory stays `/`, where the program's relative defaults (`data/…`) mean the same folder.
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["taskhook", "healthcheck"]
ENTRYPOINT ["taskhook"]
CMD ["serve"]
