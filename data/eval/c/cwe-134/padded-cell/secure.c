    snprintf(cell, size, "%*s", width, text);
}
