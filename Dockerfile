# dg-run with CUDA kernels for all GPU architectures of note. The image needs NVIDIA's driver and container toolkit on the
# host, and works on the CPU without them.
#
#   docker build --tag deepguard .
#   docker run --rm --gpus all --volume "$PWD:/work" deepguard train --model MODEL --data data --output-dir runs/first

FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip xz-utils
WORKDIR /source
COPY . .
RUN make dist && mkdir /dist && tar -C /dist --strip-components=1 -xf target/dist/deepguard-*-gnu.tar.xz

FROM debian:bookworm-slim
# The certificates are for models of a hub.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /dist /usr/local
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
ENTRYPOINT ["dg-run"]
