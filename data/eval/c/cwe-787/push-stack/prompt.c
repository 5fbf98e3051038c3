#include <stdbool.h>

#define DEPTH 8

struct stack {
    int items[DEPTH];
    int count;
};

/* Puts a value on the stack; false if it is full. */
bool stack_push(struct stack *stack, int value)
{
