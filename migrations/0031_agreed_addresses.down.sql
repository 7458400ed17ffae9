alter table one_time_tokens drop column moves_to;
