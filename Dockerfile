# A server of one model, or of a folder of models, without PyTorch: the networks are converted where they were trained.
#
#   docker build -t regraft-serve .
#   regraft predict my-model new.jpg --store my-store       # on a processor of the same kind: converts, once
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -e REGRAFT_TOKEN=... \
#     -v ./my-model:/model:ro -v ./my-store:/store regraft-serve
FROM python:3.12-slim
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir --no-deps /source \
 && pip install --no-cache-dir "cyclopts>=4" "lmdb>=3" "numpy>=1.26" "openvino>=2025.0" "pillow>=12" "pillow-heif>=1.0" \
    "platformdirs>=4" "rich>=13" "safetensors>=0.4.3" "simplejpeg>=1.8" "threadpoolctl>=3.1" \
    "httptools>=0.6" "python-multipart>=0.0.18" "starlette>=0.46" "uvicorn>=0.30" \
 && rm -r /source
RUN useradd --uid 10001 regraft
USER regraft
ENV REGRAFT_CACHE=/store PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=5s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["regraft", "serve", "/model", "--host", "0.0.0.0", "--engine", "openvino"]
