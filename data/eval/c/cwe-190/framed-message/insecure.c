    uint16_t total = header_length + body_length;
    char *message = malloc(total);
    if (message == NULL)
        return NULL;
    memcpy(message, header, header_length);
    memcpy(message + header_length, body, body_length);
    *length = total;
    return message;
}
