# The demonstration, from training a controller to C++ whose test bench has run:
#   docker build -t sound-qkeras . && docker run --rm -v "$PWD/demo:/demo" sound-qkeras
FROM python:3.13-slim
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip install --no-cache-dir '/source[hls]' && rm -rf /source
ENTRYPOINT ["sound-qkeras"]
CMD ["demo", "--out", "/demo/out"]
