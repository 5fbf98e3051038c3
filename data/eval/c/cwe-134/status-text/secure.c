    snprintf(text, size, "%s", status);
}
