    memmove(text, text + length, strlen(text + length) + 1);
    return text;
}
