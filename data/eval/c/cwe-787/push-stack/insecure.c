    stack->items[stack->count] = value;
    stack->count++;
    return stack->count < DEPTH;
}
