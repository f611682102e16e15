# Two images from one source:
#   docker build --target train -t sim2real:train .    trains, evaluates, exports
#   docker build --target robot -t sim2real:robot .    runs a bundle on the robot; no torch, no PyBullet
# BASE_IMAGE is any Debian or Ubuntu with Python 3.11 to 3.13 and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1000 robot && python3 -m venv /opt/venv
COPY constraints.txt /opt/venv/

FROM base AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /dist .

FROM base AS train
# Software OpenGL for the camera before the MuJoCo target.
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /dist /dist
RUN pip install -c /opt/venv/constraints.txt "$(ls /dist/*.whl)[train,vision,ros,drivers]"
USER robot
WORKDIR /home/robot
ENTRYPOINT ["sim2real"]

FROM base AS robot
COPY --from=wheel /dist /dist
RUN pip install -c /opt/venv/constraints.txt "$(ls /dist/*.whl)[ros,camera]"
USER robot
WORKDIR /home/robot
ENTRYPOINT ["python", "-m", "sim2real.deploy.policy_node"]
