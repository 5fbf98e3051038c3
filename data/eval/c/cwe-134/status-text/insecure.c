    snprintf(text, size, status);
}
