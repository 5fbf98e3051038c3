        buffer->data = NULL;
        buffer->length = buffer->capacity = 0;
        return 0;
    }
    char *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return -1;
    buffer->data = data;
    buffer->capacity = capacity;
    if (buffer->length > capacity)
        buffer->length = capacity;
    return 0;
}
