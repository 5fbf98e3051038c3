    if (stack->count >= DEPTH)
        return false;
    stack->items[stack->count++] = value;
    return true;
}
