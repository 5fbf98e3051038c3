    char *message = malloc((size_t)header_length + body_length + 1);
    if (message == NULL)
        return NULL;
    memcpy(message, header, header_length);
    memcpy(message + header_length, body, body_length);
    *length = header_length + body_length;
    return message;
}
