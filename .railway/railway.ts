// Railway: the service, PostgreSQL and Redis. `railway config plan`, then `railway config apply`: docs/deploy/railway.md.
import { defineRailway, postgres, preserve, redis, service } from "railway/iac";

export default defineRailway((_, project) => {
  const database = postgres("postgres");
  const limits = redis("redis");

  const api = service("api", {
    build: { builder: "DOCKERFILE", dockerfilePath: "Dockerfile" },
    // The image has no shell: these are programs and their arguments.
    start: "/usr/local/bin/plinth serve",
    preDeploy: "/usr/local/bin/plinth migrate",
    // Asked while a deployment starts, and never again: watch it from outside as well.
    healthcheck: "/health/ready",
    healthcheckTimeout: 30,
    replicas: 1,
    deploy: {
      restartPolicyType: "ON_FAILURE",
      restartPolicyMaxRetries: 10,
      // Without it the old instance is killed at once. Three seconds of notice, SHUTDOWN_TIMEOUT, two to close.
      drainingSeconds: 35,
      overlapSeconds: 10,
    },
    env: {
      DATABASE_URL: database.env.DATABASE_URL,
      REDIS_URL: limits.env.REDIS_URL,
      MIGRATE_ON_START: "false",
      SHUTDOWN_TIMEOUT: "25",
      TRUSTED_PROXY: "railway",
      // Set in the dashboard, and left alone here.
      PUBLIC_URL: preserve(),
      ALLOWED_ORIGINS: preserve(),
      JWT_SECRET: preserve(),
      OPENAI_API_KEY: preserve(),
      SMTP_URL: preserve(),
      MAIL_FROM: preserve(),
      STRIPE_SECRET_KEY: preserve(),
      STRIPE_WEBHOOK_SECRET: preserve(),
      REVENUECAT_WEBHOOK_SECRET: preserve(),
      METRICS_TOKEN: preserve(),
      SENTRY_DSN: preserve(),
    },
  });

  return project("plinth", { resources: [database, limits, api] });
});
