# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/roadworthy
# Building from the working tree: .dockerignore lets in what the wheel is made of, and nothing else.
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/roadworthy/bin/python -m pip install --no-cache-dir "$(ls /wheels/*.whl)[server,postgres]"

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 roadworthy \
    && useradd --system --uid 10001 --gid roadworthy --home-dir /data --create-home roadworthy
COPY --from=build /opt/roadworthy /opt/roadworthy
ENV PATH=/opt/roadworthy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ROADWORTHY_HOST=0.0.0.0 \
    ROADWORTHY_PORT=8000 \
    ROADWORTHY_DATABASE_URL=sqlite:////data/roadworthy.db
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"ROADWORTHY_PORT\"]}/healthz', timeout=2)"]
ENTRYPOINT ["roadworthy"]
CMD ["serve"]
