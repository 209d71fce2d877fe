# For the CPU:       docker build -t openaff .
# For NVIDIA GPUs:   docker build -t openaff --build-arg MXNET=cu117 .
#                    docker run --gpus all --shm-size=1g -it openaff bash
# Debian 12 has Python 3.11. No CUDA image: the extra [cu117] brings CUDA, --gpus the driver.
FROM debian:12-slim

# mxnet is linked to libgomp and libquadmath; results name the commit, if git can tell it.
RUN apt-get update && apt-get install -y --no-install-recommends \
        git make python3 python3-venv libgomp1 libquadmath0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /openaff
COPY . .
ARG MXNET=cpu
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -e ".[$MXNET,onnx,demo]"
ENV PATH=/openaff/.venv/bin:$PATH
CMD ["python", "-m", "openaff.doctor"]
