# The gateway. Nothing of what builds it is in what runs.
#
#   docker build -t thinkonce .
#   docker run -p 127.0.0.1:8000:8000 -v thinkonce:/var/lib/thinkonce thinkonce \
#     serve --upstream https://api.openai.com
#
# The same releases as the tests run with: constraints.txt pins all of them.
ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv --without-pip /opt/thinkonce
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip --python /opt/thinkonce/bin/python install ".[gateway,encryption]"

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="thinkonce" org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin thinkonce \
 && install --directory --owner=thinkonce --group=thinkonce --mode=0700 /var/lib/thinkonce
COPY --from=build /opt/thinkonce /opt/thinkonce
ENV PATH=/opt/thinkonce/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    THINKONCE_GATEWAY_HOST=0.0.0.0 \
    THINKONCE_GATEWAY_PORT=8000 \
    THINKONCE_DATA_DIR=/var/lib/thinkonce
USER 10001:10001
WORKDIR /var/lib/thinkonce
VOLUME /var/lib/thinkonce
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"THINKONCE_GATEWAY_PORT\"]}/readyz', timeout=3)"]
ENTRYPOINT ["thinkonce"]
CMD ["serve"]
