    snprintf(out, size, "%s: %s%s", path, reason, note);
}
