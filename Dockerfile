# One image for every role: celery worker, beat, Temporal worker, dashboard, migrations.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/jobbridge UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
# First what changes rarely: the dependencies of the lock file.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project --extra temporal --extra handlers --extra dashboard --extra otel
COPY README.md LICENSE ./
COPY migrations migrations
COPY jobbridge jobbridge
RUN uv sync --locked --no-dev --no-editable --extra temporal --extra handlers --extra dashboard --extra otel

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /app --create-home jobbridge
COPY --from=build /opt/jobbridge /opt/jobbridge
ENV PATH=/opt/jobbridge/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
COPY celeryconfig.py ./
USER jobbridge
CMD ["jobbridge", "--help"]
